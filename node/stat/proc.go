package stat

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 wherever Go runs.
const tick = time.Second / 100

// A process holds the fields of /proc/PID/stat that are counted.
type process struct {
	zombie    bool
	user, sys time.Duration // including children that have been waited for
	start     time.Duration // after boot
	vsz, rss  uint64        // bytes
}

var errStat = errors.New("/proc/PID/stat is not as proc(5) says")

// parseStat parses /proc/PID/stat. The name of the program is in parentheses, is
// chosen by its owner and may itself contain parentheses and blanks: the other
// fields begin after the last parenthesis.
func parseStat(b []byte) (process, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return process{}, errStat
	}
	fields := bytes.Fields(b[end+1:]) // fields[0] is field 3, the state
	const first = 3
	if len(fields) <= 24-first {
		return process{}, errStat
	}
	var bad bool
	field := func(n int) uint64 {
		text := fields[n-first]
		if text[0] == '-' { // cutime and cstime are signed
			return 0
		}
		v, ok := number(text)
		bad = bad || !ok
		return v
	}
	p := process{
		zombie: fields[0][0] == 'Z' || fields[0][0] == 'X',
		user:   time.Duration(field(14)+field(16)) * tick, // utime, cutime
		sys:    time.Duration(field(15)+field(17)) * tick, // stime, cstime
		start:  time.Duration(field(22)) * tick,
		vsz:    field(23),
		rss:    field(24) * uint64(os.Getpagesize()),
	}
	if bad {
		return process{}, errStat
	}
	return p, nil
}

// parseCPUStat returns user_usec and system_usec of a cgroup's cpu.stat.
func parseCPUStat(b []byte) (user, sys time.Duration, ok bool) {
	var hasUser, hasSys bool
	for line := range bytes.Lines(b) {
		key, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		n, isNumber := number(value)
		if !isNumber {
			continue
		}
		switch string(key) {
		case "user_usec":
			user, hasUser = time.Duration(n)*time.Microsecond, true
		case "system_usec":
			sys, hasSys = time.Duration(n)*time.Microsecond, true
		}
	}
	return user, sys, hasUser && hasSys
}

func number(b []byte) (n uint64, ok bool) {
	n, err := strconv.ParseUint(string(b), 10, 64)
	return n, err == nil
}
