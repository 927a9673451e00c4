// Package probe tells what this kernel and this host are able to do. Each
// ability is a value that names what it is for and what is lost without it.
// check prints them; whoever needs one asks for it here, so that a start and a
// check cannot disagree.
//
// Abilities are tried, not guessed from the kernel's version: distributions
// backport, configure out and lock down. There are three answers: yes, no, and
// unknown, which is neither. A yes is asked for once in a process, unless an
// administrator may change it meanwhile (Ability.Changes). A no is asked again:
// somebody may have done something about it.
//
// Probes change nothing that others see: what they mount, link or attach is in
// namespaces of a thread that ends, in a cgroup that is removed, in processes
// that never run. Killed in the middle, they can leave an empty cgroup or one
// small directory named .vsnode-check-PID-N; RemoveLeftovers removes both.
//
// It runs on any kernel, and needs root to tell more than half.
package probe
