#!/bin/sh
# Writes an image to stdout, as `docker save` does: busybox (a shell, a web server and some 200 small programs), which is all that the
# examples here need. It is made of the busybox of the machine that it runs on, by that machine's Docker: nothing is fetched.
#
# For machines without a registry and without internet, as the hosts of a lab are:
#
#     hmctl lab exec node1 -- sh -s < examples/image.sh > busybox.tar
#     hmctl image push busybox.tar
#
# What `docker save NAME > FILE.tar` writes on any machine can be pushed like this; where Docker is on your own, `hmctl image push NAME`
# does both. Nodes that reach a registry need none of it: `image: busybox` is fetched from there.
set -eu

name=busybox:latest
[ -z "$(docker images --quiet "$name")" ] || exec docker save "$name"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$root/root"
chmod 755 "$root"
chmod 1777 "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
for program in $("$root/bin/busybox" --list); do
  [ "$program" = busybox ] || ln -s busybox "$root/bin/$program"
done
printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/bin/false' > "$root/etc/passwd"

tar -C "$root" --numeric-owner --owner=0 --group=0 -c . | docker import --change 'CMD ["sh"]' - "$name" > /dev/null
docker save "$name"
docker rmi "$name" > /dev/null # the cluster will know it
