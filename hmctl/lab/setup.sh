#!/bin/sh
# Runs inside the new base image (chroot), after debootstrap. Arguments: the packages to add. Part of the recipe: changing a byte makes a new image.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
exec </dev/null

say() { echo "lab: $*"; }

say "refreshing the package lists"
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d # packages must not start services in here
chmod 755 /usr/sbin/policy-rc.d
apt-get -q update

# Newer releases keep the docker command in a package of its own, which docker.io only recommends.
if apt-cache show docker-cli > /dev/null 2>&1; then set -- "$@" docker-cli; fi

say "downloading packages"
apt-get -q -y --no-install-recommends --download-only install "$@"
say "installing packages"
apt-get -q -y --no-install-recommends install "$@"
rm -f /usr/sbin/policy-rc.d

# Hosts have no way to the archive that this image came from. What was installed stays installable from a directory of its own,
# so that removing a package and having it installed again (as a deploy does) can be tried.
say "keeping the packages for the hosts' own package manager"
mkdir -p /srv/packages
mv /var/cache/apt/archives/*.deb /srv/packages/
cd /srv/packages
for deb in *.deb; do
  dpkg-deb --field "$deb"
  echo "Filename: ./$deb"
  echo "Size: $(stat -c %s "$deb")"
  echo "SHA256: $(sha256sum "$deb" | cut -d ' ' -f 1)"
  echo
done > Packages
cd /
rm -rf /etc/apt/sources.list.d/* /etc/apt/lab-* /etc/apt/apt.conf.d/00lab /var/lib/apt/lists/* /var/cache/apt/*.bin
echo 'deb [trusted=yes] file:/srv/packages ./' > /etc/apt/sources.list
apt-get -q update

say "configuring"
systemctl --quiet disable prometheus.service # a test starts its own, with its own configuration
# Ubuntu's bpftool wants to be of the running kernel's version. It need not be.
bpftool=$(find /usr/lib/linux-tools -name bpftool 2> /dev/null | sort -V | tail -n 1)
[ -z "$bpftool" ] || ln -sf "$bpftool" /usr/local/sbin/bpftool
# A host without a way out must learn at once that there is no name server, not after a timeout.
rm -f /etc/resolv.conf
echo 'nameserver 127.0.0.1' > /etc/resolv.conf
rm -f /etc/machine-id /var/lib/dbus/machine-id /etc/hostname /etc/ssh/ssh_host_*
: > /etc/machine-id
mkdir -p /var/log/journal # keeps the journal over a crash

cat > /etc/ssh/sshd_config.d/lab.conf << 'END'
PermitRootLogin prohibit-password
PasswordAuthentication no
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/lab_authorized_keys
UseDNS no
END
grep -q '^Include /etc/ssh/sshd_config.d' /etc/ssh/sshd_config || sed -i '1i Include /etc/ssh/sshd_config.d/*.conf' /etc/ssh/sshd_config

useradd --create-home --shell /bin/bash ops
useradd --create-home --shell /bin/bash opspw
echo 'opspw:lab' | chpasswd
cat > /etc/sudoers.d/lab << 'END'
ops ALL=(ALL:ALL) NOPASSWD: ALL
opspw ALL=(ALL:ALL) ALL
END
chmod 440 /etc/sudoers.d/lab

# systemd-nspawn hands over version 1 cgroup controllers and /proc/sys read-only; Docker needs both.
cat > /etc/systemd/system/lab-writable.service << 'END'
[Unit]
Description=Make cgroups and kernel settings of this host writable
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mountpoint -q "$d" && mount -o remount,rw,bind "$d"; done; mount -o remount,rw /proc/sys; true'
END
mkdir -p /etc/systemd/system/sysinit.target.wants
ln -sf ../lab-writable.service /etc/systemd/system/sysinit.target.wants/lab-writable.service

# Nothing that wakes up by itself, waits for a console or expects hardware: hosts start fast and idle at zero.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer systemd-tmpfiles-clean.timer motd-news.timer \
  console-getty.service getty@.service serial-getty@.service systemd-udevd.service systemd-networkd.service systemd-networkd-wait-online.service \
  systemd-resolved.service systemd-timesyncd.service systemd-logind.service e2scrub_reap.service ldconfig.service; do
  ln -sf /dev/null "/etc/systemd/system/$unit"
done
ln -sf /lib/systemd/system/multi-user.target /etc/systemd/system/default.target
rm -rf /usr/share/man/* /usr/share/doc/* /var/cache/debconf/*-old /tmp/* /var/tmp/*
say "done"
