package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/fleet/history"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nearest"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// setting can also be set by an environment variable, such as VSFLEET_FORKS, or in a
// settings file. The description of a fleet, and how its hosts are reached, belong in
// its inventory.
type setting struct {
	name string // of a flag, or of onlySettings
	want string // describes valid values in errors
	text bool   // a number is not a value
	list bool   // of files
	// check refuses values that the flag takes; nil: it takes none of them.
	check func(value string) error
}

var settable = []setting{
	{"inventory", "a file, or a list of files", true, true, nil},
	{"forks", "a number of hosts", false, false, positive},
	{"output", "the name of a format", true, false, func(v string) error { _, err := view.ParseFormat(v); return err }},
	{"connect-timeout", "a time, as 30 or 30s", false, false, positive},
	{"no-color", "true or false", false, false, nil},
	{"age-identity", "a file, or a list of files", true, true, nil},
	{"registry-ca", "the absolute path of a file", true, false, absolute},
	{"confirm-hosts", "a number of hosts", false, false, nil},
	{"store", "postgres://USER@HOST/DATABASE or none", true, false, history.CheckStore},
	{"keep", "a number of runs or days, as 500 or 90d", false, false, func(v string) error { _, err := history.ParseKeep(v); return err }},
}

// absolute refuses paths that depend on the directory of a call.
func absolute(value string) error {
	if !filepath.IsAbs(value) {
		return fmt.Errorf("want an absolute path, have %q", value)
	}
	return nil
}

// positive refuses a number or duration that is not more than 0.
func positive(value string) error {
	if value == "0" || strings.HasPrefix(value, "-") {
		return fmt.Errorf("want more than 0, have %s", value)
	}
	return nil
}

// settingNames returns the names of all settings.
func settingNames() []string {
	names := make([]string, len(settable))
	for i, s := range settable {
		names[i] = s.name
	}
	return names
}

// variable returns the name of the environment variable.
func (s setting) variable() string {
	return "VSFLEET_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// onlySettings returns the settings that are not flags. They are the same for every
// command, and the address of a store may hold a password, which must not be in a
// command line.
func (a *app) onlySettings() *pflag.FlagSet {
	f := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	f.IntVar(&a.confirmHosts, "confirm-hosts", 100, "")
	f.StringVar(&a.history.Store, "store", "", "")
	f.StringVar(&a.keep, "keep", history.KeepByDefault, "")
	return f
}

// settings sets flags that were not given from the environment, or else from
// vsfleet.yml in this directory, of the user, or of the machine.
func (a *app) settings(flags *pflag.FlagSet) error {
	files, err := settingsFiles()
	if err != nil {
		return err
	}
	a.origins = nil
	for _, warning := range unknownVariables(os.Environ()) {
		if !a.quiet {
			message("warning: " + warning)
		}
	}
	others := a.onlySettings()
	for _, setting := range settable {
		set := flags
		if flags.Lookup(setting.name) == nil {
			set = others
		}
		origin := "--" + setting.name
		if !set.Changed(setting.name) {
			if origin, err = setting.apply(set, files); err != nil {
				return &usageError{err: err}
			}
		}
		a.origins = append(a.origins, report.SettingRecord{Name: setting.name, Value: shownValue(set.Lookup(setting.name)), Origin: origin})
	}
	return a.keeper()
}

// apply sets a flag from the environment, or else from a file, and returns where the value
// came from.
func (s setting) apply(flags *pflag.FlagSet, files []settingsFile) (origin string, err error) {
	origin, where, values := s.variable(), s.variable(), []string{os.Getenv(s.variable())}
	if values[0] != "" && s.list {
		values = filepath.SplitList(values[0])
	}
	for i := 0; i < len(files) && values[0] == ""; i++ {
		if !files[i].IsSet(s.name) {
			continue
		}
		origin = files[i].path
		where = fmt.Sprintf("settings %s:%d: %s", origin, files[i].lines[s.name], s.name)
		if values, err = s.texts(files[i].Get(s.name)); err != nil {
			return "", fmt.Errorf("%s: %w", where, err)
		}
	}
	if values[0] == "" {
		origin = "default"
	}
	for _, value := range values {
		if value == "" {
			continue
		}
		if err := flags.Set(s.name, value); err != nil {
			return "", fmt.Errorf("%s: want %s, have %q", where, s.want, value)
		}
		if s.check == nil {
			continue
		}
		if err := s.check(flags.Lookup(s.name).Value.String()); err != nil {
			return "", fmt.Errorf("%s: %w", where, err)
		}
	}
	return origin, nil
}

// shownValue returns the value of a flag for people. The address of a store is shown
// without its password.
func shownValue(f *pflag.Flag) string {
	value := strings.Trim(f.Value.String(), "[]")
	if address, err := url.Parse(value); err == nil && address.User != nil {
		return address.Redacted()
	}
	return value
}

// texts returns a value of a file as flags take it: one text, or several for a list of
// inventories.
func (s setting) texts(value any) ([]string, error) {
	kind := ""
	switch v := value.(type) {
	case nil:
		kind = "nothing"
	case string:
		if v != "" {
			return []string{v}, nil
		}
		kind = "an empty text"
	case bool, int, int64, uint64, float64:
		if !s.text {
			return []string{fmt.Sprint(v)}, nil
		}
		kind = fmt.Sprint(v)
	case []any:
		kind = "a list"
		if !s.list {
			break
		}
		var all []string
		for _, item := range v {
			text, ok := item.(string)
			if !ok || text == "" {
				return nil, fmt.Errorf("want a list of files, there is %v in it", item)
			}
			all = append(all, text)
		}
		if all != nil {
			return all, nil
		}
		kind = "an empty list"
	default:
		kind = "a mapping"
	}
	return nil, fmt.Errorf("want %s, have %s", s.want, kind)
}

// settingsFile is what one file sets.
type settingsFile struct {
	*viper.Viper
	path  string
	lines map[string]int // of the settings
}

// settingsFiles returns the settings files that exist, in order of precedence.
func settingsFiles() ([]settingsFile, error) {
	paths := []string{"vsfleet.yml"}
	if dir, err := os.UserConfigDir(); err == nil { // fails only without a home directory
		paths = append(paths, filepath.Join(dir, "vsfleet", "config.yml"))
	}
	var files []settingsFile
	for _, path := range append(paths, "/etc/vsfleet/config.yml") {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, &usageError{err: fmt.Errorf("settings: %w", err)}
		}
		file := settingsFile{viper.New(), path, map[string]int{}}
		if err := file.read(data); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// read checks the form of a file, with the line of each mistake, before viper reads it.
func (f settingsFile) read(data []byte) error {
	doc, err := yamlpos.Document(data)
	if errors.Is(err, io.EOF) || err == nil && yamlpos.IsNull(doc.Content[0]) {
		return nil // only comments
	}
	var mistakes yamlpos.Report
	d := yamlpos.Decoder{File: f.path, Report: &mistakes, Doc: yamlpos.Doc{Noun: "a settings file", Page: "docs/commands.md"}}
	top := d.Root(data, doc, err)
	if top == nil {
		return mistakes.Err()
	}
	if top.Kind != yaml.MappingNode {
		return &usageError{err: fmt.Errorf("settings %s:%d: want settings, as forks: 64", f.path, top.Line)}
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key := top.Content[i]
		name := strings.ToLower(key.Value)
		switch {
		case !slices.Contains(settingNames(), name):
			meant := ""
			if near := nearest.Word(name, settingNames()); near != "" {
				meant = ": did you mean " + near + "?"
			}
			return usage("known settings: %s; settings of hosts go into the inventory", strings.Join(settingNames(), ", "))(
				fmt.Errorf("settings %s:%d: unknown setting %q%s", f.path, key.Line, key.Value, meant))
		case f.lines[name] != 0:
			return &usageError{err: fmt.Errorf("settings %s:%d: %s is set already, in line %d", f.path, key.Line, name, f.lines[name])}
		}
		f.lines[name] = key.Line
	}
	f.SetConfigType("yaml")
	if err := f.ReadConfig(bytes.NewReader(data)); err != nil {
		return &usageError{err: fmt.Errorf("settings %s: %w", f.path, err)}
	}
	return nil
}

// unknownVariables returns warnings about variables that look like settings and are none.
func unknownVariables(environ []string) (warnings []string) {
	var known []string
	for _, s := range settable {
		known = append(known, s.variable())
	}
	for _, assignment := range environ {
		name, value, _ := strings.Cut(assignment, "=")
		of, ok := strings.CutPrefix(name, "VSFLEET_")
		own := of == "LAB" || strings.HasPrefix(of, "LAB_") || strings.HasPrefix(of, "TEST_") || strings.HasPrefix(of, "BENCH_")
		if !ok || own || value == "" || slices.Contains(known, name) {
			continue
		}
		warning := "the variable " + name + " is not a setting"
		for i, s := range settingNames() {
			if s == nearest.Word(strings.ToLower(strings.ReplaceAll(of, "_", "-")), settingNames()) {
				warning += ": did you mean " + known[i] + "?"
			}
		}
		warnings = append(warnings, warning)
	}
	return warnings
}
