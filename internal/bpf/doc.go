// Package bpf makes the calls of bpf(2) that each start, stop and exec makes, one system
// call each. Loading from object files, links and whatever needs the kernel's types is for
// github.com/cilium/ebpf, which first tries what the kernel can do and asks it about each
// object that it opens: a start by command took 130 system calls more with it.
package bpf
