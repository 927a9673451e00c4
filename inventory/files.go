package inventory

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/secret"
)

// Limits on the files of a guest or an image, which are sent in one message with
// the plan.
const (
	MaxFile  = 1 << 20 // bytes of one
	MaxFiles = 4 << 20 // bytes of all
)

// File is a file that a guest or an image should have.
type File struct {
	Path    string // absolute and clean
	Content []byte // without secrets in it; Read returns it with them
	Mode    uint32 // permission bits
	Owner   string // "user:group", names or ids of the guest
	// Secret files are never shown, neither in diffs nor in listings.
	Secret   bool
	OnChange OnChange
	Pos      Position

	parts []part // the content of a file that holds secrets
}

// OnChange is what to do in a running guest after a file has changed. The zero
// value is nothing.
type OnChange struct {
	Restart bool
	Command []string // to run inside the guest
}

// fileSpec is a file as written in the inventory.
type fileSpec struct {
	path                      string
	pos                       Position
	content, source, template text
	mode, owner               text
	sealed                    secret.Value // content, if it is encrypted
	secret                    given[bool]
	restart                   bool
	program                   bool // it is to be run
	command                   []text
}

var (
	fileMode  = regexp.MustCompile(`^[0-7]{3,4}$`)
	fileOwner = regexp.MustCompile(`^([a-z_][a-z0-9_.-]{0,31}\$?|[0-9]{1,5})(:([a-z_][a-z0-9_.-]{0,31}\$?|[0-9]{1,5}))?$`)
)

// files reads the files of a guest or an image, by their paths.
func (d *decoder) files(to *[]*fileSpec) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		d.Entries(name, v, "a mapping of paths in the guest, as {/etc/motd: {content: hello}}", func(k text, v *yaml.Node) {
			f := &fileSpec{path: k.Value, pos: k.Pos}
			known := d.Fields("file "+yamlpos.Short(k.Value), v, "a mapping, as {source: motd, mode: 0644}", []key{
				// Not d.text: a file may be empty.
				{Name: "content", Read: func(name string, v *yaml.Node) { d.fileContent(f, name, v) }},
				{Name: "source", Read: d.path(&f.source, "a file beside the inventory")},
				{Name: "template", Read: d.path(&f.template, "a file beside the inventory, with ${…} to be replaced")},
				{Name: "mode", Read: d.Text(&f.mode, "permissions as 0644")},
				{Name: "owner", Read: d.Text(&f.owner, "USER or USER:GROUP, as www-data:www-data")},
				{Name: "secret", Read: d.Flag(&f.secret)},
				{Name: "on_change", Read: func(name string, v *yaml.Node) { d.onChange(f, name, v) }},
			})
			if known == nil {
				return
			}
			if problem := badPath(k.Value); problem != "" {
				d.Add(k.Pos, "", "files: %s: %s", yamlpos.Short(k.Value), problem)
				return
			}
			sources := 0
			for _, t := range []text{f.content, f.source, f.template} {
				if t.OK() {
					sources++
				}
			}
			if sources != 1 {
				d.Add(k.Pos, "", "files: %s: want one of content, source and template, have %d of them", yamlpos.Short(k.Value), sources)
			}
			*to = append(*to, f)
		})
		slices.SortFunc(*to, func(a, b *fileSpec) int { return strings.Compare(a.path, b.path) })
		for i, f := range *to {
			for _, other := range (*to)[i+1:] {
				if strings.HasPrefix(other.path, f.path+"/") {
					d.Add(other.pos, "", "files: %s cannot be below %s, which is a file as well", yamlpos.Short(other.path), yamlpos.Short(f.path))
				}
			}
		}
	}
}

// badPath returns why a path cannot be that of a guest's file, or "".
func badPath(p string) string {
	switch {
	case !strings.HasPrefix(p, "/") || p != path.Clean(p) || p == "/":
		return "want an absolute path without . and .., as /etc/motd"
	case len(p) > 4000 || slices.ContainsFunc(strings.Split(p, "/"), func(name string) bool { return len(name) > 200 }):
		return "the path is too long"
	case strings.ContainsFunc(p, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "the path has a control character"
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/var/run"} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return fmt.Sprintf("%s of a guest is made anew at each start, so no file lasts there", dir)
		}
	}
	return ""
}

// fileContent reads the text of a file, which may be empty or encrypted.
func (d *decoder) fileContent(f *fileSpec, name string, n *yaml.Node) {
	n = yamlpos.Target(n)
	if !isSecret(n) {
		f.content, _ = d.Scalar(name, n, "the file's text")
		return
	}
	if v, ok := d.secret(name, n); ok {
		f.content, f.sealed = text{Pos: d.At(n)}, v
	}
}

func (d *decoder) onChange(f *fileSpec, name string, v *yaml.Node) {
	const want = "restart, or a command to run in the guest, as [systemctl, reload, nginx]"
	if yamlpos.Target(v).Kind == yaml.SequenceNode {
		d.Texts(&f.command, want)(name, v)
		if len(f.command) == 0 || f.command[0].Value == "" {
			d.Add(d.At(yamlpos.Target(v)), "", "on_change: the command is empty, want %s", want)
		}
		return
	}
	var word text
	d.Text(&word, want)(name, v)
	if f.restart = word.Value == "restart"; word.OK() && !f.restart {
		d.Add(word.Pos, "", "on_change: want %s, have %q", want, yamlpos.Short(word.Value))
	}
}

// resolveFiles returns the files for the resolver's host. An image is the same on
// all hosts: its files hold no variables.
func (r *resolver) resolveFiles(specs []*fileSpec, image bool) []File {
	var list []File
	total := 0
	for _, spec := range specs {
		f := File{Path: spec.path, Mode: 0o644, Owner: "root:root", OnChange: OnChange{Restart: spec.restart}, Pos: spec.pos}
		if spec.program {
			f.Mode = 0o755
		}
		r.value(spec.mode, "mode", func(s string) error {
			if !fileMode.MatchString(s) {
				return fmt.Errorf("want permissions as 0644, have %q", yamlpos.Short(s))
			}
			mode, err := strconv.ParseUint(s, 8, 32)
			f.Mode = uint32(mode)
			return err
		})
		r.value(spec.owner, "owner", func(s string) error {
			if !fileOwner.MatchString(s) {
				return fmt.Errorf("want USER or USER:GROUP, names or ids up to 65535, have %q", yamlpos.Short(s))
			}
			if f.Owner = s; !strings.Contains(s, ":") {
				f.Owner += ":" + s
			}
			return nil
		})
		for _, word := range spec.command {
			r.value(word, "on_change", func(s string) error {
				f.OnChange.Command = append(f.OnChange.Command, s)
				return nil
			})
		}
		r.content(spec, image, &f)
		// A file that only its owner may read is not meant for a screen.
		if f.Secret = f.Mode&0o044 == 0; spec.secret.OK() {
			f.Secret = spec.secret.Value
		}
		if f.parts != nil {
			r.holdsSecret(spec, &f)
			if spec.program {
				f.Mode = 0o700
			}
		}
		if total += f.size(); total > MaxFiles {
			r.fail(spec.pos, "put what is large into an image, or copy it by other means", "files: more than %d MiB altogether", MaxFiles>>20)
			return nil
		}
		list = append(list, f)
	}
	return list
}

func (r *resolver) content(spec *fileSpec, image bool, f *File) {
	switch t := spec.content; {
	case spec.sealed != secret.Value{}:
		r.seal(f, t.Pos, []part{{secret: spec.sealed}}, image)
	case t.OK() && image:
		f.Content = []byte(t.Value)
		r.bounded(t.Pos, f.Content)
	case t.OK():
		if err := r.expandInto(f, t.Value); err != nil {
			r.failed = true
			r.FailedIn(t, err)
		}
		r.bounded(t.Pos, f.Content)
	}
	if image && hasVariable(spec.source.Value) {
		r.fail(spec.source.Pos, "", "source: an image is the same on all hosts, so its files hold no variables")
		return
	}
	r.value(spec.source, "source", func(s string) error {
		data, err := r.readFile(s)
		if err != nil || !secret.IsSealed(data) || filepath.Ext(s) != ".age" {
			f.Content = data
			return err
		}
		v, err := r.sealedFile(s, data)
		if err == nil {
			r.seal(f, spec.source.Pos, []part{{secret: v}}, image)
		}
		return err
	})
	if image && spec.template.OK() {
		r.fail(spec.template.Pos, "use source, or give the file to the guests", "template: an image is the same on all hosts, so its files hold no variables")
		return
	}
	r.value(spec.template, "template", func(s string) error {
		data, err := r.readFile(s)
		if err != nil {
			return err
		}
		if bad := r.expandInto(f, string(data)); bad != nil {
			r.Keep(s, data)
			bad.Pos = r.Within(text{Value: string(data), Pos: Position{File: s, Line: 1, Column: 1}}, bad.Offset-1)
			return bad
		}
		r.bounded(spec.template.Pos, f.Content)
		return nil
	})
}

// expandInto makes a text with its variables replaced the content of a file.
func (r *resolver) expandInto(f *File, s string) *Error {
	if f.Content = []byte(s); !hasVariable(s) {
		return nil
	}
	parts, err := r.scope.expandParts(s)
	switch {
	case err != nil || r.scope.host == nil:
		return err
	case len(parts) > 1:
		f.Content, f.parts = nil, parts
	default:
		f.Content = []byte(parts[0].text)
	}
	return nil
}

func (r *resolver) bounded(pos Position, content []byte) {
	if len(content) > MaxFile {
		r.fail(pos, "put it into an image, or copy it by other means", "files: a file of more than %d MiB", MaxFile>>20)
	}
}

func (r *resolver) fail(pos Position, hint, format string, args ...any) {
	r.failed = true
	r.Once(pos, hint, format, args...)
}

// readFile returns the content of a file that the inventory names. It reads each
// file once for all hosts.
func (b *builder) readFile(name string) ([]byte, error) {
	if c, ok := b.contents[name]; ok {
		return c.data, c.err
	}
	if b.contents == nil {
		b.contents = map[string]fileContent{}
	}
	data, err := readBounded(expandHome(name))
	b.contents[name] = fileContent{data, err}
	return data, err
}

type fileContent struct {
	data []byte
	err  error
}

func readBounded(name string) ([]byte, error) {
	st, err := os.Stat(name) // before it is opened: a pipe would wait for its writer
	if err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	if err != nil {
		return nil, err
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%s has more than %d MiB: put it into an image, or copy it by other means", name, MaxFile>>20)
	}
	return data, err
}

// expandHome replaces "~" by the home directory.
func expandHome(name string) string {
	rest, ok := strings.CutPrefix(name, "~/")
	home, err := os.UserHomeDir()
	if !ok || err != nil {
		return name
	}
	return filepath.Join(home, rest)
}
