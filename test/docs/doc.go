// Package docs checks that the documentation names what exists: commands
// and flags of vsfleet, inventories that load, rows of check, keys of the
// inventory, packages, files, links. It has tests only, builds vsfleet and asks
// it for its help; none of it needs a host.
package docs
