package probe

import (
	"os/exec"
	"strings"
)

// program returns a probe for one of some programs, found as a build finds it.
func program(names ...string) func(*System) Answer {
	return func(*System) Answer {
		for _, name := range names {
			if path, err := exec.LookPath(name); err == nil {
				return Yes("%s", path)
			}
		}
		return No("%s is not installed", strings.Join(names, " or "))
	}
}
