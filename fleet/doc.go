// Package fleet does one thing on many hosts of an inventory: reach them, ask
// them, run commands there. How a host is reached is said by its inventory and
// may be overruled by the operator ([Access]); the packages below do the work.
//
// It keeps nothing: every call opens its connections and closes them. When the
// context ends no more hosts are begun, and those that are get to end it.
package fleet
