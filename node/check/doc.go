// Package check answers whether a host is able to run guests, and what is in
// the way: what testme.sh was to Linux-VServer.
//
// Each feature is a row of one table: what it is for, how it is probed, what
// is lost without it and what to do about it. Features are tried, not guessed
// from the kernel's version. A probe that could not tell says so; that is not
// a no, and stops nobody.
//
// Probes change nothing that others see: what they mount, link or attach is in
// namespaces of a thread that ends, in a cgroup that is removed, in processes
// that never run. Killed in the middle, they can leave an empty cgroup or one
// small directory named .vsnode-check-PID-N; the next check removes both.
//
// It runs on any kernel, and has to be root's to tell more than half.
package check
