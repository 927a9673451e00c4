// Command bench measures vsnode and vsfleet beside the programs that people use
// today: each pair in one run, in turns, warm. A figure means nothing on another
// machine, but the ratio of two figures does. scripts/bench builds and runs it.
//
// It needs root, and works on a machine of its own (machine.go): namespaces, a
// network and directories that end with it. The machine that it is started on stays
// as it is; a bench that was killed leaves a directory in /var/lib.
package main
