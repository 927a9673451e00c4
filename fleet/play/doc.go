// Package play carries playbooks out on a fleet, over package rollout.
//
// Each play is a run of rollout.Fleet.Work. Its steps are grouped into stages: hosts
// wait for each other only at steps that need it (an image that one of them builds for
// the others, guests made as the inventory wants them, a pause, a question). All other
// steps of a host go to it over one session, in one request until a condition or text
// needs the result of an earlier step; then the next request follows on the same
// session. Conditions are evaluated here, never on a host: vsnode knows only steps, not
// playbooks.
//
// # Guarantees
//
// Each step that was done on a host is reported, even if the run is interrupted. A step
// that was sent and not answered is reported as failed, never as done. A command cannot
// be undone: one that is under way when the run is interrupted may end by itself, and a
// second run does it again, unless creates or removes shows that it was done. A result
// is used only on the host that it came from.
//
// # Edges
//
// Nothing here prints, reads flags or knows SSH.
package play
