// Package program runs inventory programs, which print hosts, groups and variables
// as JSON when they are called with --list or --host.
//
// It is beside package inventory, which runs nothing. A program has a time to answer
// and a bound on what it may print; when the time is over or the context ends, it is
// killed with all processes that it has started in its process group. It has no
// terminal and nothing to read, and the environment of vsfleet. If vsfleet itself is
// killed, the program goes on until it writes to its closed pipe.
package program
