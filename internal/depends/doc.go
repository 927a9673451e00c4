// Package depends orders guests by what they depend on: a guest starts after those that
// it needs, and stops before them. It reads nothing and knows nothing of guests but
// their names, so that the host and the inventory share one rule.
//
// A circle has no order: Order names it, and nothing is done. Walk does at most a given
// number of things at a time, and does not begin what needs something that failed.
package depends
