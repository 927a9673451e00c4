// Package health waits until a guest is healthy: until all of its checks pass, and go
// on to pass for the time that is asked for.
//
// Commands run inside the guest; connections are made from its own network, so that
// 127.0.0.1 is the guest's. Nothing of the guest's runs outside of it, and what it
// answers is cut short and only compared, or quoted in an error.
//
// Each look at a check is bounded, and so is the whole: Wait returns when its deadline
// or the context ends. It changes nothing, and may be interrupted at any time.
package health
