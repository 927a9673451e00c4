// Package faults tests what vsfleet makes of hosts and networks that fail: every class
// of failure happens for real, in every phase of a connection. No run hangs, no host is
// lost that could be had, and each failure has its class, its message, its hint and its
// exit status.
package faults
