// Package node is one host: its guests, images, counters and abilities behind
// the four questions that a controller asks (node/serve's Host). The parts are
// in the packages below it; here they are put together, and a plan's steps are
// carried out in order.
package node
