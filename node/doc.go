// Package node is one host: its guests, images, counters and abilities behind
// the requests of a controller (node/serve's Host and StreamHost). The parts are
// in the packages below it; here they are put together, and a plan's steps are
// carried out in order.
package node
