package setting

import "slices"

// HookPhases are the moments at which hooks run (package hook).
var HookPhases = []string{"initialize", "prepre-start", "pre-start", "post-start", "pre-stop", "post-stop", "postpost-stop"}

const hookName = ".d/50-inventory"

// HookFile returns the file of a guest's configuration that holds the inventory's hook
// for a moment. Hooks that an administrator wrote are beside it.
func HookFile(phase string) string { return "scripts/" + phase + hookName }

// IsHook reports whether a path is one of HookFile.
func IsHook(path string) bool {
	return slices.ContainsFunc(HookPhases, func(phase string) bool { return HookFile(phase) == path })
}
