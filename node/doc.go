// Package node implements one host for a controller's requests (Host and StreamHost
// of node/serve): its guests, images, counters and abilities. The parts are in the
// packages below; this package puts them together and carries out a plan's steps in
// order.
//
// Killed: the host's lease ends with the process; everything else is as the packages
// below leave it, and each request can be made again.
package node
