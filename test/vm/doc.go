// Package vm tests vsfleet on real hosts: Debian 12 and 13 with systemd and their
// own kernels, in virtual machines, driven over SSH as any host. It has tests
// only:
//
//	go test ./test/vm                        all of it, on Debian 12, as root
//	go test ./test/vm -run Scripts           the quick selection (make test-vm)
//	VM=trixie go test ./test/vm -run 'Scripts/apply$'    one script, on Debian 13
//
// A script is a file of its own: testdata/TOPIC.txtar if it belongs to the quick
// selection, testdata/nightly/TOPIC.txtar otherwise (make test-vm-all; -run
// 'Nightly/TOPIC$'). Scripts run one after the other. Each finds the machine as it
// was just after its boot, whatever the script before did to it: disk and memory
// are put back, which takes a few seconds. So a script may break the host.
//
// The machine is called host, has the address 10.77.0.2 (fd77::2; device ens3),
// 2 processors, 1.5 GiB of memory, and an empty second disk of 8 GiB, /dev/vdb.
// The test is its only neighbour, at 10.77.0.1 (fd77::1); there is no internet.
// On the machine are
//
//	/srv/busybox.tar   a guest of one busybox; /sbin/web PORT serves its hostname
//	/srv/debian.tar    a guest with systemd, of the machine's own suite
//
// and packages that a script may install (test/vm/build has the list):
//
//	on apt-get install -q -y --no-download --no-install-recommends NAME
//
// A script's directory has host.yml, the inventory with the host; fleet.yml is for
// the guests. Beside testscript's own commands and those of package test/script
// (exits, fill, fetch) there are
//
//	on COMMAND…       run it on the host as root, by a shell (! on: it fails)
//	until COMMAND…    the same again until it succeeds (! until: until it fails)
//	put FILE PATH     copy a file of the script to the host
//	reboot            from inside; wait until the host is back
//	crash             the same by the reset button: nothing is synced or stopped
//	poweroff          from inside; wait until the machine is off
//	boot [WORD…]      a machine that is off, or with other words for its kernel:
//	                  start it and wait until it is up
//	monitor COMMAND…  a command of qemu's monitor: stop, cont, info status
//
// Machines are emulated by software, so that the tests run wherever Go runs, and
// are slow: give waits room, and wait for conditions. The first run makes the
// disk and boots it, which takes some minutes; both are kept in
// /var/cache/vsfleet-test until what made them changes.
//
// All of a run lives in a process and network namespace of its own, which takes
// everything with it when the test ends, however it does.
package vm
