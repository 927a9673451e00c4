#!/bin/sh
# Runs this package's tests on another kernel: boots one of Debian's in qemu
# (without KVM, two minutes) with nothing but busybox and the test binary.
#
#	boot-test.sh [PACKAGE [TEST FLAGS]]     default: the newest 6.1, the floor
#
# Needs qemu-system-x86, busybox-static, cpio. Changes nothing on this machine.
set -eu
cd "$(dirname "$0")"
package=${1:-$(apt-cache search --names-only '^linux-image-6\.1\.[-0-9]*cloud-amd64$' | sort -V | tail -1 | cut -d' ' -f1)}
[ $# -gt 0 ] && shift
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
chmod 755 "$tmp"

(cd "$tmp" && apt-get -q download "$package" && dpkg -x ./*.deb kernel)
mkdir -p "$tmp/root/bin" "$tmp/root/mod" "$tmp/root/proc" "$tmp/root/sys" "$tmp/root/dev" "$tmp/root/run" "$tmp/root/tmp"
CGO_ENABLED=0 go test -c -o "$tmp/root/test" .
cp "$(command -v busybox)" "$tmp/root/bin/busybox"
ln -s busybox "$tmp/root/bin/sh"
for m in veth inet_diag tcp_diag udp_diag tls; do # in the order of their needs
	find "$tmp/kernel/lib/modules" -name "$m.ko" -exec cp {} "$tmp/root/mod/" \;
done
cat >"$tmp/root/init" <<END
#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs none /sys/kernel/security
mount -t cgroup2 none /sys/fs/cgroup
mount -t devtmpfs dev /dev
for m in veth inet_diag tcp_diag udp_diag tls; do
	[ ! -e /mod/\$m.ko ] || insmod /mod/\$m.ko
done
echo "kernel \$(uname -r), security modules \$(cat /sys/kernel/security/lsm)"
/test $* && echo BOOT-TEST PASSED
poweroff -f
END
chmod 755 "$tmp/root/init"
(cd "$tmp/root" && find . | cpio --quiet -o -H newc | gzip -1) >"$tmp/initrd"
timeout 600 qemu-system-x86_64 -accel tcg -cpu max -m 1024 -smp 1 -nographic -no-reboot \
	-kernel "$tmp"/kernel/boot/vmlinuz-* -initrd "$tmp/initrd" \
	-append "console=ttyS0 quiet panic=-1" </dev/null 2>&1 | tee "$tmp/log"
grep -q "BOOT-TEST PASSED" "$tmp/log"
