package playbooks

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/setting"
)

// Kind is a kind of step, by the key that a step has for it.
type Kind struct {
	Name    string
	Doc     string
	Example string
	Main    string // the parameter that a single value gives, as in "image: bookworm"
	Words   string // the parameter that a list gives, as in "exec: [nginx, -t]"
	Params  []Param
	Results []Field // what it registers, besides changed, failed, skipped and error
	In      bool    // it may be about a guest: "in: www"
	// Together means that the hosts of a batch wait for each other there.
	Together bool
	// Bare means that it may be written without a value.
	Bare bool
}

// Form is how a parameter is written.
type Form string

// Forms.
const (
	OneText   Form = "text"
	TextList  Form = "list of texts"
	TextMap   Form = "mapping of texts"
	Flag      Form = "true or false"
	Condition Form = "condition, or a list of them"
)

// Param is a parameter of a step.
type Param struct {
	Name     string
	Form     Form
	Doc      string
	Required bool
	Words    []string // what it may be
	check    func(string) error
}

// Field is a value that a step registers.
type Field struct {
	Name string
	Doc  string
	none any // if the step was skipped
}

// The kinds of steps.
const (
	Check    = "check"
	Image    = "image"
	Guest    = "guest"
	Exec     = "exec"
	Copy     = "copy"
	Template = "template"
	Wait     = "wait"
	Network  = "network"
	Limits   = "limits"
	Stat     = "stat"
	Assert   = "assert"
	Pause    = "pause"
	Confirm  = "confirm"
	Include  = "play"
)

var (
	fileParams = []Param{
		{Name: "to", Form: OneText, Required: true, Doc: "absolute path of the file", check: absolute},
		{Name: "mode", Form: OneText, Doc: "permissions; default `0644`", check: mode},
		{Name: "owner", Form: OneText, Doc: "`USER` or `USER:GROUP`, names or ids; default `root:root`"},
		{Name: "secret", Form: Flag, Doc: "never show its content, neither in diffs nor anywhere else; default: only if nobody but its owner may read it"},
	}
	timeoutParam = Param{Name: "timeout", Form: OneText, Doc: "fail after this time, `90s`, `10m`", check: duration}
)

// Kinds is the table of steps, in the order of the documentation.
var Kinds = []*Kind{
	{
		Name: Check, Bare: true, Main: "identity",
		Doc:     "Fail unless the host is able to run guests, as `vsfleet check` finds it. With `identity`, instead open a new connection to the host with that key and no other: a later step may then take the old key away.",
		Example: "check: {identity: ~/.ssh/new}",
		Params:  []Param{{Name: "identity", Form: OneText, Doc: "private key file on the controller"}},
		Results: []Field{{"able", "whether the host is able", false}, {"lost", "what it lacks, one per line", ""}},
	},
	{
		Name: Image, Main: "name", Together: true,
		Doc:     "Bring an image of the inventory onto the hosts: one of them builds it if no host has it, the others get it from there.",
		Example: "image: bookworm",
		Params:  []Param{{Name: "name", Form: OneText, Required: true, Doc: "of the image"}},
	},
	{
		Name: Guest, Main: "name", Together: true,
		Doc:     "Make guests of the host as the inventory wants them, or do something with them.",
		Example: "guest: {name: www, do: restart}",
		Params: []Param{
			{Name: "name", Form: OneText, Required: true, Doc: "of the guest, or a pattern: `www`, `web*`, `*`"},
			{Name: "state", Form: OneText, Words: []string{"running", "stopped", "absent"}, Doc: "make it as the inventory wants it, but with this state"},
			{Name: "do", Form: OneText, Words: []string{"build", "start", "stop", "restart", "delete"}, Doc: "only this; `build` creates it and does not start it. Without `state` and `do` the guest is made as the inventory wants it"},
		},
	},
	{
		Name: Exec, Main: "shell", Words: "command", In: true,
		Doc:     "Run a command as root. A text is a line for `/bin/sh`, a list is a program with its arguments.",
		Example: "exec: [nginx, -t]\nin: www",
		Params: []Param{
			{Name: "command", Form: TextList, Doc: "a program and its arguments"},
			{Name: "shell", Form: OneText, Doc: "a line for `/bin/sh -c`, instead of a command"},
			{Name: "creates", Form: OneText, Doc: "do nothing if this file exists", check: absolute},
			{Name: "removes", Form: OneText, Doc: "do nothing unless this file exists", check: absolute},
			{Name: "env", Form: TextMap, Doc: "environment variables"},
			{Name: "stdin", Form: OneText, Doc: "its standard input"},
			timeoutParam,
		},
		Results: []Field{
			{"rc", "exit status; -1 if it was not run", -1}, {"stdout", "its output, without the last newline", ""},
			{"stderr", "its errors, likewise", ""},
		},
	},
	{
		Name: Copy, In: true, Main: "to",
		Doc:     "Write a file, completely or not at all, if it differs. In a guest the path cannot lead out of it.",
		Example: "copy: {to: /etc/motd, content: \"hello\\n\"}",
		Params: append(slices.Clone(fileParams),
			Param{Name: "content", Form: OneText, Doc: "what is to be in it, with `${…}` replaced"},
			Param{Name: "source", Form: OneText, Doc: "a file beside the playbook, taken as it is"}),
	},
	{
		Name: Template, In: true, Main: "to",
		Doc:     "Write a file from a template beside the playbook, with `${…}` replaced.",
		Example: "template: {source: nginx.conf, to: /etc/nginx/nginx.conf}",
		Params:  append(slices.Clone(fileParams), Param{Name: "source", Form: OneText, Required: true, Doc: "the template"}),
	},
	{
		Name: Wait, In: true, Main: "seconds",
		Doc:     "Wait until something is there, seen from the host, or with `in` from the guest. One of `tcp`, `port`, `file`, `command` and `seconds`.",
		Example: "wait: {port: 80, timeout: 1m}\nin: www",
		Params: []Param{
			{Name: "tcp", Form: OneText, Doc: "`ADDRESS:PORT` where somebody accepts connections", check: target},
			{Name: "port", Form: OneText, Doc: "the same on `127.0.0.1`", check: port},
			{Name: "file", Form: OneText, Doc: "a file that exists", check: absolute},
			{Name: "command", Form: TextList, Doc: "a command that succeeds"},
			{Name: "seconds", Form: OneText, Doc: "only this time, `10`, `1m`", check: duration},
			{Name: "gone", Form: Flag, Doc: "wait until it is no longer so"},
			{Name: "timeout", Form: OneText, Doc: "fail after this time; default `5m`", check: duration},
		},
	},
	{
		Name: Network, Main: "guest",
		Doc:     "Change the ports or forwards of a guest on the host, until the next `apply`, which makes them as the inventory wants them.",
		Example: "network: {guest: www, ports: [80/tcp, 8080/tcp]}",
		Params: []Param{
			{Name: "guest", Form: OneText, Required: true, Doc: "its name"},
			{Name: "ports", Form: TextList, Doc: "as `network.ports` of the inventory"},
			{Name: "forward", Form: TextList, Doc: "as `network.forward` of the inventory"},
		},
	},
	{
		Name: Limits, Main: "guest",
		Doc:     "Change limits of a guest on the host, until the next `apply`, which makes them as the inventory wants them.",
		Example: "limits: {guest: www, memory: 1G}",
		Params:  append([]Param{{Name: "guest", Form: OneText, Required: true, Doc: "its name"}}, limits()...),
	},
	{
		Name: Stat, In: true, Main: "path",
		Doc:     "Look at a file, or with `guest` at a guest, and register what it is.",
		Example: "stat: /run/reboot-required\nregister: reboot",
		Params: []Param{
			{Name: "path", Form: OneText, Doc: "absolute path of the file", check: absolute},
			{Name: "guest", Form: OneText, Doc: "name of a guest, instead of a path"},
		},
		Results: []Field{
			{"exists", "whether the file or the guest is there", false}, {"kind", "`file`, `directory`, `link` or `other`", ""},
			{"size", "bytes", 0}, {"mode", "permissions, `0644`", ""}, {"uid", "owner", 0}, {"gid", "group", 0},
			{"digest", "`sha256:…` of a file up to 1 MiB", ""}, {"running", "whether the guest runs", false}, {"context", "of the guest", 0},
		},
	},
	{
		Name: Assert, Main: "that",
		Doc:     "Fail unless all conditions are true.",
		Example: "assert: {that: [facts.memory > 2000000000], message: too little memory}",
		Params: []Param{
			{Name: "that", Form: Condition, Required: true, Doc: "what must be true"},
			{Name: "message", Form: OneText, Doc: "the error, if it is not"},
		},
	},
	{
		Name: Pause, Main: "for", Together: true,
		Doc:     "Wait on the controller, once for all hosts of the batch.",
		Example: "pause: 30s",
		Params:  []Param{{Name: "for", Form: OneText, Required: true, Doc: "a time, `30s`, `5m`", check: duration}},
	},
	{
		Name: Confirm, Main: "question", Together: true,
		Doc:     "Ask a person, once for all hosts of the batch. A no ends the run. `--yes` answers yes.",
		Example: "confirm: Is the canary well?",
		Params:  []Param{{Name: "question", Form: OneText, Required: true, Doc: "what to ask"}},
	},
	{
		Name: Include, Main: "file",
		Doc:     "Take the steps of another file, a list of steps, in place of this one. Among the plays it takes the plays of another playbook.",
		Example: "play: checks.yml",
		Params:  []Param{{Name: "file", Form: OneText, Required: true, Doc: "beside this one"}},
	},
}

// KindOf returns the kind of steps with a name, or nil.
func KindOf(name string) *Kind {
	i := slices.IndexFunc(Kinds, func(k *Kind) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return Kinds[i]
}

func (k *Kind) param(name string) *Param {
	i := slices.IndexFunc(k.Params, func(p Param) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &k.Params[i]
}

// controls reports whether a step of the kind does nothing on the hosts.
func (k *Kind) controls() bool { return k.Name == Pause || k.Name == Confirm || k.Name == Include }

// ParseDuration reads a time: 90s, 5m, or a number of seconds.
func ParseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		n, numeric := strconv.ParseFloat(text, 64)
		if numeric != nil || n > 1e6 {
			return 0, fmt.Errorf("want a time as 90s, 5m or a number of seconds, have %q", text)
		}
		d = time.Duration(n * float64(time.Second))
	}
	if d <= 0 || d > 7*24*time.Hour {
		return 0, fmt.Errorf("want a time of more than nothing and at most a week, have %q", text)
	}
	return d, nil
}

func duration(text string) error { _, err := ParseDuration(text); return err }

func absolute(text string) error {
	if !path.IsAbs(text) || path.Clean(text) != text || text == "/" {
		return fmt.Errorf("want an absolute path without . and .., as /etc/motd, have %q", text)
	}
	return nil
}

var fileMode = regexp.MustCompile(`^[0-7]{3,4}$`)

func mode(text string) error {
	if !fileMode.MatchString(text) {
		return fmt.Errorf("want permissions as 0644, have %q", text)
	}
	return nil
}

func port(text string) error {
	if n, err := strconv.ParseUint(text, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("want a port from 1 to 65535, have %q", text)
	}
	return nil
}

func target(text string) error {
	if rest, ok := strings.CutPrefix(text, "localhost:"); ok {
		return port(rest)
	}
	if _, err := netip.ParseAddrPort(text); err != nil {
		return fmt.Errorf("want an IP address and a port, as 192.0.2.1:80 or localhost:80, have %q", text)
	}
	return nil
}

// limits returns the parameters that are limits of a guest: all that the inventory has.
func limits() (params []Param) {
	for _, row := range setting.In("limits") {
		p := Param{Name: row.Name(), Form: OneText, Doc: "as `" + row.Key + "` of the inventory"}
		if row.Form == setting.List {
			p.Form = TextList
		}
		params = append(params, p)
	}
	return params
}
