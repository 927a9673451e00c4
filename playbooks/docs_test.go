package playbooks

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the reference into docs/playbooks.md")

// The documentation has the table of steps, and each playbook that comes with vsfleet.
func TestDocumentation(t *testing.T) {
	const page, begin, end = "../docs/playbooks.md", "<!-- steps -->\n", "<!-- end of steps -->"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no %s", page, strings.TrimSpace(begin))
	}
	want := before + begin + Reference() + end + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(data) {
		t.Errorf("%s is not up to date: go test ./playbooks -run TestDocumentation -update", page)
	}
	for _, s := range AllShipped() {
		if !strings.Contains(before, "| `"+s.Name+"` |") {
			t.Errorf("%s does not name %s", page, s.Name)
		}
		if !strings.HasSuffix(s.About, ".") {
			t.Errorf("%s says of itself %q", s.Name, s.About)
		}
	}
}

// Each playbook that comes with vsfleet is one, once its variables are given.
func TestShipped(t *testing.T) {
	anything := &Fleet{
		Vars: map[string]any{}, Images: []string{"bookworm"},
		Hosts: func(string) error { return nil }, Guests: func(string) error { return nil },
	}
	vars := map[string][]string{
		"evacuate": {"host=web1"}, "move-service": {"guest=www", "from=web1", "to=web2"},
		"rotate-ssh-keys": {"old=a", "new=b", "identity=c"}, "update-base": {"image=bookworm"},
	}
	for _, s := range AllShipped() {
		_, err := Load(s.Name, Options{Read: func(string) ([]byte, error) { return []byte(s.Text), nil }, Fleet: anything, Vars: vars[s.Name]})
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}
