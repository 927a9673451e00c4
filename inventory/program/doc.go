// Package program runs inventory programs, which print hosts, groups and variables
// as JSON when they are called with --list or --host.
//
// It is separate from package inventory, which runs no programs. The time and the
// output of a program are limited. When the time is over or the context ends, the
// program is killed with all processes of its process group. It has no terminal and no
// input, and gets the environment of vsfleet. If vsfleet itself is killed, the program
// goes on until it writes to its closed pipe.
package program
