// Package play carries playbooks out on a fleet, over package rollout.
//
// Each play is a run of rollout.Fleet.Work. Its steps are grouped into stages: hosts
// wait for each other only at steps that need it (an image that one of them builds for
// the others, guests made as the inventory wants them, a pause, a question). All other
// steps of a host go to it over one session, in one request as far as no condition or
// text needs the result of an earlier one; then the next request follows on the same
// session. Conditions are evaluated here, never on a host: vsnode knows steps, and
// nothing of playbooks.
//
// # Guarantees
//
// What was done on a host is reported step by step, also if the run is interrupted. A
// step that was sent and not answered is reported as failed, never as done. A command
// cannot be undone: one that is under way when the run is interrupted may end by
// itself, and a second run does it again, unless creates or removes says how to see
// that it is done. What a host answers is used on that host only.
//
// # Edges
//
// Nothing here prints, reads flags or knows SSH.
package play
