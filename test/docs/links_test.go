package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestNamedFilesExist looks for the Go files that docs/architecture.md and
// docs/security.md name, by their last part.
func TestNamedFilesExist(t *testing.T) {
	out, err := exec.Command("find", root, "-name", "*.go", "-printf", "%f\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(out))
	for _, name := range []string{"docs/architecture.md", "docs/security.md"} {
		for _, file := range regexp.MustCompile(`[\w/]+\.go\b`).FindAllString(read(t, name), -1) {
			if !slices.Contains(files, filepath.Base(file)) {
				t.Errorf("%s names %s, which is not there", name, file)
			}
		}
	}
}

// TestNamedPathsExist looks for the folders and files that CONTRIBUTING.md names.
func TestNamedPathsExist(t *testing.T) {
	seen := 0
	for _, l := range parse("", read(t, "CONTRIBUTING.md")).prose {
		for _, span := range codeSpan.FindAllStringSubmatch(l.text, -1) {
			if !regexp.MustCompile(`^(\.golangci\.yml|[a-z]+/[\w./-]+|fleet|node)$`).MatchString(span[1]) || strings.Contains(span[1], "NAME") {
				continue
			}
			seen++
			if _, err := os.Stat(filepath.Join(root, span[1])); err != nil {
				t.Errorf("CONTRIBUTING.md:%d: %v", l.number, err)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d paths were found", seen)
	}
}

// TestLinksLead follows every link between pages, to the heading.
func TestLinksLead(t *testing.T) {
	for _, p := range pages(t) {
		for _, l := range p.prose {
			for _, m := range regexp.MustCompile(`\]\(([^)]*)\)`).FindAllStringSubmatch(l.text, -1) {
				target, anchor, _ := strings.Cut(m[1], "#")
				if strings.Contains(target, "://") {
					continue
				}
				name := p.name
				if target != "" {
					name = filepath.Join(filepath.Dir(p.name), target)
				}
				if _, err := os.Stat(filepath.Join(root, name)); err != nil {
					t.Errorf("%s:%d: %s: %v", p.name, l.number, m[1], err)
				} else if anchor != "" && !slices.Contains(anchors(read(t, name)), anchor) {
					t.Errorf("%s:%d: %s: there is no such heading", p.name, l.number, m[1])
				}
			}
		}
	}
}

// anchors of a page's headings: lower case, letters, digits and dashes.
func anchors(text string) []string {
	var list []string
	for _, l := range parse("", text).prose {
		heading, ok := strings.CutPrefix(strings.TrimLeft(l.text, "#"), " ")
		if !ok || !strings.HasPrefix(l.text, "#") {
			continue
		}
		list = append(list, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-', r == '_':
				return r
			}
			return -1
		}, strings.ToLower(heading)))
	}
	return list
}
