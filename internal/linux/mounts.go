package linux

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Mount is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	ID      int
	Dir     string
	FSType  string
	Source  string
	Options []string // of the filesystem: for cgroup v1 its controllers
}

// Mounts lists the mounts of our mount namespace.
func Mounts() ([]Mount, error) {
	text, err := ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	mounts, err := ParseMounts(string(text))
	if err == nil && len(mounts) == 0 {
		err = errors.New("/proc/self/mountinfo is empty")
	}
	return mounts, err
}

// ParseMounts parses the text of /proc/self/mountinfo. A line it does not understand is
// an error: a mount that is overlooked may be one that the caller must not touch.
func ParseMounts(text string) ([]Mount, error) {
	var mounts []Mount
	for line := range strings.Lines(text) {
		// 36 35 98:0 /root /where options optional… - type source superoptions
		before, after, found := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Split(strings.TrimSuffix(after, "\n"), " ")
		if !found || len(left) < 6 || len(right) < 3 {
			return nil, fmt.Errorf("/proc/self/mountinfo: line not understood: %q", line)
		}
		id, err := strconv.Atoi(left[0])
		if err != nil {
			return nil, fmt.Errorf("/proc/self/mountinfo: line not understood: %q", line)
		}
		mounts = append(mounts, Mount{
			ID: id, Dir: unescape.Replace(left[4]), FSType: right[0], Source: unescape.Replace(right[1]), Options: strings.Split(right[2], ","),
		})
	}
	return mounts, nil
}

// The kernel writes these four characters of a path as octal escapes.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
