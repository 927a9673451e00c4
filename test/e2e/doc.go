// Package e2e tests vsfleet as a whole, from its command line over real OpenSSH to
// running guests, on the practice hosts of package lab. It
// has tests only:
//
//	go test ./test/e2e                   all of it, as root; builds bin/vsfleet first
//	go test ./test/e2e -run Scripts/road one script
//
// testdata/*.txtar are scripts that read as a manual: what to type, and what
// is then printed. What a script cannot express (kills at any moment, a full
// disk, the attack from inside guests) is Go.
//
// Each test has a lab of its own, called e2eSOMETHING, below /var/lib/vsfleet-e2e.
// Guests are made of a busybox, so that a test takes seconds; one script takes
// debootstrap, word for word as Linux-VServer's manual has it. When all is done
// the machine is compared with what it was before.
package e2e
