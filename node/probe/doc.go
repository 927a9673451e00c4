// Package probe finds out what this kernel and this host are able to do. Each
// ability is a value that names its purpose and what is lost without it. check prints
// them all, and code that needs one asks for it here, so that a start and a check
// cannot disagree.
//
// Abilities are tried, not guessed from the kernel's version: distributions
// backport, configure out and lock down. There are three answers: yes, no, and
// unknown. A yes is cached for the life of the process, unless an administrator may
// change it meanwhile (Ability.Changes). A no is not: somebody may have fixed the
// cause.
//
// Probes change nothing that others see: what they mount, link or attach is in
// namespaces of a thread that ends, in a cgroup that is removed, or in processes
// that never run. If killed, they may leave an empty cgroup or one small directory
// named .vsnode-check-PID-N; RemoveLeftovers removes both.
//
// It runs on any kernel; without root, more than half of the answers are unknown.
package probe
