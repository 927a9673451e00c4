// Package faultproxy passes TCP connections on and damages them as bad networks do:
// it delays, bounds the bandwidth, stalls, resets, leaves half-open, or swallows
// everything. Tests put it between a controller and an SSH server.
//
// Faults can change while connections are open ([Proxy.Set]). Nothing outlives
// [Proxy.Close].
package faultproxy
