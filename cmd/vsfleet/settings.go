package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/vsfleet/vsfleet/fleet/history"
	"github.com/vsfleet/vsfleet/fleet/report"
)

// setting can also be set by an environment variable, such as VSFLEET_FORKS, or in a
// settings file. The description of a fleet, and how its hosts are reached, belong in
// its inventory.
type setting struct {
	name string // of a flag, or of onlySettings
	want string // describes valid values in errors
	text bool   // a number is not a value
	list bool   // of files
}

var settable = []setting{
	{"inventory", "a file, or a list of files", true, true},
	{"forks", "a number of hosts", false, false},
	{"output", "the name of a format", true, false},
	{"connect-timeout", "a time, as 30 or 30s", false, false},
	{"no-color", "true or false", false, false},
	{"age-identity", "a file, or a list of files", true, true},
	{"confirm-hosts", "a number of hosts", false, false},
	{"store", "postgres://USER@HOST/DATABASE or none", true, false},
	{"keep", "a number of runs or days, as 500 or 90d", false, false},
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
func (s setting) apply(flags *pflag.FlagSet, files []*viper.Viper) (origin string, err error) {
	origin, where, values := s.variable(), s.variable(), []string{os.Getenv(s.variable())}
	if values[0] != "" && s.list {
		values = filepath.SplitList(values[0])
	}
	for i := 0; i < len(files) && values[0] == ""; i++ {
		if !files[i].IsSet(s.name) {
			continue
		}
		origin = files[i].ConfigFileUsed()
		where = fmt.Sprintf("settings %s: %s", origin, s.name)
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

// settingsFiles returns the settings files that exist, in order of precedence.
func settingsFiles() ([]*viper.Viper, error) {
	paths := []string{"vsfleet.yml"}
	if dir, err := os.UserConfigDir(); err == nil { // fails only without a home directory
		paths = append(paths, filepath.Join(dir, "vsfleet", "config.yml"))
	}
	var files []*viper.Viper
	for _, path := range append(paths, "/etc/vsfleet/config.yml") {
		file, err := readSettings(path)
		if err != nil {
			return nil, err
		}
		if file != nil {
			files = append(files, file)
		}
	}
	return files, nil
}

func readSettings(path string) (*viper.Viper, error) {
	file := viper.New()
	file.SetConfigFile(path)
	switch err := file.ReadInConfig(); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, &usageError{err: fmt.Errorf("settings %s: %w", path, err)}
	}
	for _, key := range file.AllKeys() {
		top, _, _ := strings.Cut(key, ".")
		if !slices.Contains(settingNames(), top) {
			return nil, usage("known settings: %s; settings of hosts go into the inventory", strings.Join(settingNames(), ", "))(
				fmt.Errorf("settings %s: unknown setting %q", path, top))
		}
	}
	return file, nil
}
