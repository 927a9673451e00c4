// Command bench measures vsnode and vsfleet beside the programs that people use
// today, each pair in one run, in turns, warm: a figure of one machine means
// nothing on another, the ratio of two does. scripts/bench builds and calls it.
//
// It needs root, and works on a machine of its own (machine.go): namespaces, a
// network and directories that end with it, a killed one's included but for
// its directory in /var/lib. The machine that it is started on stays as it is.
package main
