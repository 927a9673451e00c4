package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/vsfleet/vsfleet/fleet/history"
)

// settable lists the flags that may also be set by an environment variable, such as
// VSFLEET_FORKS, or in a settings file. What describes a fleet and how its hosts are
// reached belongs in its inventory.
var settable = []string{"inventory", "forks", "output", "connect-timeout", "no-color", "age-identity", "store", "keep"}

// onlySettings returns the settings that are no flags: they are the same for every
// command, and the address of a store may hold a password, which does not belong in a
// command line.
func (a *app) onlySettings() *pflag.FlagSet {
	f := pflag.NewFlagSet("settings", pflag.ContinueOnError)
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
	others := a.onlySettings()
	for _, name := range settable {
		set := flags
		if flags.Lookup(name) == nil {
			set = others
		}
		if set.Changed(name) {
			continue
		}
		variable := "VSFLEET_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		where, values := variable, []string{os.Getenv(variable)}
		if values[0] != "" && isList(name) {
			values = filepath.SplitList(values[0])
		}
		for i := 0; i < len(files) && values[0] == ""; i++ {
			if !files[i].IsSet(name) {
				continue
			}
			where = fmt.Sprintf("settings %s: %s", files[i].ConfigFileUsed(), name)
			if values, err = settingTexts(name, files[i].Get(name)); err != nil {
				return &usageError{err: fmt.Errorf("%s: %w", where, err)}
			}
		}
		for _, value := range values {
			if value == "" {
				continue
			}
			if err := set.Set(name, value); err != nil {
				return &usageError{err: fmt.Errorf("%s: want %s, have %q", where, settingWants[name], value)}
			}
		}
	}
	return a.keeper()
}

// settingWants describes the values of settings, for errors.
var settingWants = map[string]string{
	"inventory": "a file, or a list of files", "forks": "a number of hosts", "output": "the name of a format",
	"connect-timeout": "a time, as 30 or 30s", "no-color": "true or false", "age-identity": "a file, or a list of files",
	"store": "postgres://USER@HOST/DATABASE or none", "keep": "a number of runs or days, as 500 or 90d",
}

// settingTexts returns a value of a file as flags take it: one text, or several for a
// list of inventories.
func settingTexts(name string, value any) ([]string, error) {
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
		if !isList(name) && name != "output" && name != "store" {
			return []string{fmt.Sprint(v)}, nil
		}
		kind = fmt.Sprint(v)
	case []any:
		kind = "a list"
		if !isList(name) {
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
	return nil, fmt.Errorf("want %s, have %s", settingWants[name], kind)
}

// isList reports whether a setting may be several files.
func isList(name string) bool { return name == "inventory" || name == "age-identity" }

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
		if !slices.Contains(settable, top) {
			return nil, usage("known: %s; what belongs to hosts goes into the inventory", strings.Join(settable, ", "))(
				fmt.Errorf("settings %s: unknown setting %q", path, top))
		}
	}
	return file, nil
}
