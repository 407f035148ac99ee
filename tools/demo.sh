#!/bin/sh
# The second half of `make demo`: an image, an app, its answers, and what to try next. The lab is up and deployed.
# Usage: tools/demo.sh [SUDO...] (from the project's root; the words before commands that need root).
set -eu

hmctl=.venv/bin/hmctl
tar=.make/busybox.tar

shown() {
  printf '\n$ %s\n' "$*"
  case $1 in
    hmctl) shift; "$hmctl" -i lab.yaml "$@" ;;
    *) "$@" ;;
  esac
}

addresses=$(sed -n 's/.* address: \([0-9.]*\),.*/\1/p' lab.yaml)
[ -n "$addresses" ] || { echo "lab.yaml names no addresses: hmctl lab up writes it" >&2; exit 1; }

# The hosts of a lab have neither internet nor a registry: the image is made of what they have.
mkdir -p .make
"$@" "$hmctl" -i lab.yaml lab exec node1 -- sh -s < examples/image.sh > "$tar"
shown hmctl image push "$tar"
shown hmctl app deploy -f examples/web/compose.yaml --yes
shown hmctl app ps web
for address in $addresses; do
  shown curl -sSf --max-time 10 "http://$address:8080/"
done

first=${addresses%%[!0-9.]*}
sed "s/ADDRESS/$first/" tools/demo.txt
