package push

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/node/api"
)

// The lines of our scripts begin with a NUL, which no login shell prints.
const (
	execWord = "vsnode-exec-1" // HASH: vsnode exists, and is started
	needWord = "vsnode-need-1" // MACHINE UID FORM[,TOOL…]: vsnode is missing, and so are these tools
)

// maxChatter is how many bytes may precede our first line: enough for a message of
// the day, not for output without end.
const maxChatter = 64 << 10

// greeting is the answer to the first command on a host: vsnode serves, or the
// host needs one.
type greeting struct {
	serves  bool
	hash    string // of the vsnode that serves
	machine string // as uname -m
	uid     string
	form    string // "zstd", "gzip" or "none": what it can unpack
	missing string // tools that a push needs and the host lacks, with commas between them
}

// errNoGreeting is wrapped in an error that quotes what the host sent instead.
var errNoGreeting = errors.New("vsnode did not begin")

// readGreeting reads to the end of the line that decides, one byte at a time, as what
// follows is for another reader. r is buffered.
func readGreeting(r io.ByteReader) (greeting, error) {
	var g greeting
	var head []byte
	line := -1 // where the line that may be ours begins in head
	for {
		c, err := r.ReadByte()
		if err != nil {
			return greeting{}, fmt.Errorf("%w: %w%s", errNoGreeting, err, outputEnd(head))
		}
		head = append(head, c)
		switch {
		case c == 0:
			line = len(head) - 1
		case c == '\n' && line >= 0:
			if g.parseLine(string(head[line:])) {
				return g, nil
			}
			line = -1
		}
		if len(head) > maxChatter {
			return greeting{}, fmt.Errorf("%w within its first %d bytes%s", errNoGreeting, maxChatter, outputEnd(head))
		}
	}
}

// parseLine parses one line of our scripts, and reports whether it is the last.
func (g *greeting) parseLine(line string) (last bool) {
	if line == api.Preamble {
		g.serves = true
		return true
	}
	f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
	switch {
	case len(f) == 2 && f[0] == "\x00"+execWord:
		g.hash = f[1]
	case len(f) == 4 && f[0] == "\x00"+needWord:
		g.machine, g.uid = f[1], f[2]
		g.form, g.missing, _ = strings.Cut(f[3], ",")
		return true
	}
	return false
}

// outputEnd returns the end of what a host sent instead of a greeting, for an error.
func outputEnd(head []byte) string {
	text := transport.Printable(string(head[max(0, len(head)-200):]))
	if text == "" {
		return ""
	}
	return fmt.Sprintf(", it said: %q", text)
}
