package cgroup

import (
	"fmt"
	"strings"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// OOMKills returns how many processes of the cgroup the kernel killed for want
// of memory: 0 where cgroup v2 has no memory controller.
func (c Dir) OOMKills() int {
	b, err := linux.ReadFile(string(c) + "/memory.events")
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		_, _ = fmt.Sscanf(line, "oom_kill %d", &n)
	}
	return n
}
