package play

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/playbooks"
)

// sources checks the files of copies and templates for all hosts, before any host is
// asked: that they can be read, and that the hosts have the variables of templates. It
// leaves out what depends on facts or on results of steps, and steps whose failure is
// ignored.
func (b *bookRun) sources() error {
	c := sourceCheck{read: map[string]sourceFile{}, lacking: map[string][]string{}, errors: map[string]*playbooks.Error{}}
	for _, play := range b.book.Plays {
		hosts, err := hostsOf(play, b.Inventory, b.Among)
		if err != nil {
			return err
		}
		var steps []*playbooks.Step
		for _, st := range slices.Concat(play.Steps, play.Handlers) {
			if (st.Kind.Name == playbooks.Copy || st.Kind.Name == playbooks.Template) && st.Has("source") && !st.IgnoreErrors {
				steps = append(steps, st)
			}
		}
		if steps == nil {
			continue
		}
		p := b.performance(play)
		for _, h := range hosts {
			for _, st := range steps {
				sc := p.scopeOf(h)
				for range st.Early(&sc) {
					c.step(b.Read, st, &sc)
				}
			}
		}
	}
	return c.result()
}

// sourceFile is the content of a file, or why it cannot be read.
type sourceFile struct {
	text string
	err  error
}

// sourceCheck collects the errors of files, each once.
type sourceCheck struct {
	read    map[string]sourceFile
	order   []string
	lacking map[string][]string // hosts, by error
	errors  map[string]*playbooks.Error
}

func (c *sourceCheck) step(read func(string) ([]byte, error), st *playbooks.Step, sc *playbooks.Scope) {
	source, err := st.Text("source", sc)
	if err != nil {
		c.add("", &playbooks.Error{Pos: st.At("source"), Msg: err.Error()})
		return
	}
	path := sourcePath(st, source)
	f, known := c.read[path]
	if !known {
		data, err := read(path)
		f = sourceFile{err: err}
		if st.Kind.Name == playbooks.Template {
			f.text = string(data)
		}
		c.read[path] = f
	}
	switch {
	case f.err != nil:
		c.add("", &playbooks.Error{Pos: st.At("source"), Msg: "source: " + f.err.Error()})
	case st.Kind.Name == playbooks.Template && st.Certain(sc):
		list, err := playbooks.Missing(f.text, path, sc)
		if err != nil {
			c.add("", &playbooks.Error{Pos: st.At("source"), Msg: "source: " + err.Error()})
		}
		for _, e := range list {
			c.add(sc.Host.Name, e)
		}
	}
}

func (c *sourceCheck) add(host string, e *playbooks.Error) {
	key := e.Error()
	if c.errors[key] == nil {
		c.errors[key] = e
		c.order = append(c.order, key)
	}
	if !slices.Contains(c.lacking[key], host) {
		c.lacking[key] = append(c.lacking[key], host)
	}
}

func (c *sourceCheck) result() error {
	if c.order == nil {
		return nil
	}
	all := &playbooks.Errors{}
	for _, key := range c.order {
		e := c.errors[key]
		switch hosts := c.lacking[key]; {
		case hosts[0] == "":
		case len(hosts) == 1:
			e.Msg = "host " + hosts[0] + " has " + e.Msg
		default:
			e.Msg = fmt.Sprintf("host %s and %d more have %s", hosts[0], len(hosts)-1, e.Msg)
		}
		all.All = append(all.All, e)
	}
	return all
}

// sourcePath returns the path of a file that is named from its playbook.
func sourcePath(st *playbooks.Step, source string) string {
	if filepath.IsAbs(source) || strings.HasPrefix(source, "~/") {
		return source
	}
	return filepath.Join(filepath.Dir(st.At("source").File), source)
}
