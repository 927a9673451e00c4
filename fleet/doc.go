// Package fleet reaches hosts of an inventory, asks them, and runs commands there, on
// many of them at a time. The inventory describes how a host is reached, and the
// operator may override it ([Access]); the packages below do the work.
//
// It keeps no state: every call opens its connections and closes them. When the context
// ends, no further hosts are started; those under way finish or undo what they do.
package fleet
