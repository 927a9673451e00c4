package guest

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
)

// What one vsnode leaves to the next of an index is a line for each guest, with fields
// that tabs separate: package json would take a third of the time of a create. The first
// line is a checksum of the binary, as another version may read configurations
// differently. A damaged file counts as none.

// loadIndex reads what saveIndex has written.
func loadIndex(path string) map[string]*indexEntry {
	b, err := linux.ReadFile(path)
	first, rest, _ := strings.Cut(string(b), "\n")
	entries := map[string]*indexEntry{}
	if err != nil || first != strconv.FormatUint(binarySum(), 16) {
		return entries
	}
	for line := range strings.Lines(rest) {
		e, err := parseEntry(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return map[string]*indexEntry{}
		}
		entries[e.Guest.Name] = e
	}
	return entries
}

// saveIndex leaves out what could not be read again. Errors do not matter.
func saveIndex(path string, entries map[string]*indexEntry) {
	all := []byte(strconv.FormatUint(binarySum(), 16) + "\n")
	for _, e := range entries {
		if line := e.format(); strings.Count(line, "\t") == entryFields-1 && !strings.Contains(line, "\n") {
			all = append(append(all, line...), '\n')
		}
	}
	_ = linux.ReplaceFile(path, all, 0o600)
}

// entryFields is the number of fields of a line.
const entryFields = 11

func (e *indexEntry) format() string {
	n := &e.Guest.Network
	var addresses, ports, forwards []string
	for _, a := range n.Addresses {
		addresses = append(addresses, a.String())
	}
	for _, p := range n.Ports {
		ports = append(ports, p.String())
	}
	for _, f := range n.Forwards {
		forwards = append(forwards, f.String())
	}
	var volumes []byte
	if len(e.Guest.Volumes) > 0 {
		volumes, _ = json.Marshal(e.Guest.Volumes) // of strings
	}
	return strings.Join([]string{
		e.Guest.Name, strconv.FormatUint(e.Sum, 16), strconv.FormatBool(e.Bad), e.Files, e.Root, strconv.Itoa(e.Guest.Context), string(n.Mode),
		strings.Join(addresses, ","), strings.Join(ports, ","), strings.Join(forwards, ","), string(volumes),
	}, "\t")
}

func parseEntry(line string) (e *indexEntry, err error) {
	f := strings.Split(line, "\t")
	if len(f) != entryFields {
		return nil, strconv.ErrSyntax
	}
	e = &indexEntry{Bad: f[2] == "true", Files: f[3], Root: f[4]}
	n := &e.Guest.Network
	e.Guest.Name, n.Mode = f[0], api.Mode(f[6])
	check := func(now error) { err = cmp.Or(err, now) }
	e.Sum, err = strconv.ParseUint(f[1], 16, 64)
	context, now := strconv.Atoi(f[5])
	e.Guest.Context = context
	check(now)
	for _, word := range words(f[7]) {
		address, now := netip.ParsePrefix(word)
		n.Addresses = append(n.Addresses, address)
		check(now)
	}
	for _, word := range words(f[8]) {
		ports, now := port.Parse(word)
		n.Ports = append(n.Ports, ports)
		check(now)
	}
	for _, word := range words(f[9]) {
		forward, now := port.ParseForward(word)
		n.Forwards = append(n.Forwards, forward)
		check(now)
	}
	if f[10] != "" {
		check(json.Unmarshal([]byte(f[10]), &e.Guest.Volumes))
	}
	return e, err
}

func words(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}
