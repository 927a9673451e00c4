package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestNothingHeavyIsLinked: every start of vsnode pays for what it links, used or
// not: the bytes on the wire, and the tables that packages make at init.
func TestNothingHeavyIsLinked(t *testing.T) {
	list := exec.Command("go", "list", "-deps", ".")
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	if !slices.Contains(linked, "github.com/vsfleet/vsfleet/node") {
		t.Fatalf("go list says %q", out)
	}
	for _, heavy := range []string{"regexp", "text/template", "net/http", "crypto/tls", "log/slog", "encoding/gob", "github.com/spf13/cobra", "go.yaml.in/yaml/v3"} {
		if slices.Contains(linked, heavy) {
			t.Errorf("vsnode links %s", heavy)
		}
	}
}

// TestLittleIsMadeBeforeMain: every start of vsnode pays for the variables of packages. Our
// own make their tables when they are asked for them, and the package that gives up
// processors comes before those that allocate.
func TestLittleIsMadeBeforeMain(t *testing.T) {
	self := exec.Command("/proc/self/exe", "-test.run=^$")
	self.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := self.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const ours = "github.com/vsfleet/vsfleet/"
	var order []string
	for line := range strings.Lines(string(out)) {
		var name, at, took string
		var bytes, allocs int
		if _, err := fmt.Sscanf(line, "init %s @%s ms, %s ms clock, %d bytes, %d allocs", &name, &at, &took, &bytes, &allocs); err != nil {
			continue
		}
		order = append(order, name)
		if strings.HasPrefix(name, ours) && (bytes > 4<<10 || allocs > 40) {
			t.Errorf("%s: %d bytes in %d allocations: make it in a function (sync.OnceValue), or as a literal that the compiler lays out", name, bytes, allocs)
		}
	}
	if first, then := slices.Index(order, ours+"internal/oneprocessor"), slices.Index(order, "os"); first < 0 || first > then {
		t.Errorf("package oneprocessor is the %dth and os the %dth of %q", first, then, order)
	}
}
