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
)

// settable are the flags that may also be set for all calls, by VSFLEET_FORKS
// and the like or in a settings file. What a fleet is, and how its hosts are
// reached, belongs into its inventory.
var settable = []string{"inventory", "forks", "output", "connect-timeout", "no-color"}

// settings fills the flags that were not given: from the environment, from
// vsfleet.yml here, from the user's, from the machine's.
func (a *app) settings(flags *pflag.FlagSet) error {
	v := viper.New()
	for _, path := range settingsFiles() {
		if err := mergeSettings(v, path); err != nil {
			return err
		}
	}
	v.SetEnvPrefix("VSFLEET")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	for _, name := range settable {
		must(v.BindEnv(name))
		if flags.Changed(name) || !v.IsSet(name) {
			continue
		}
		values := []string{v.GetString(name)}
		if name == "inventory" {
			values = inventories(v.Get(name))
		}
		for _, value := range values {
			if err := flags.Set(name, value); err != nil {
				return &usageError{err: fmt.Errorf("setting %s (VSFLEET_%s or a settings file): %w", name, strings.ToUpper(strings.ReplaceAll(name, "-", "_")), err)}
			}
		}
	}
	return nil
}

// inventories are the paths of a list in a file, or of a variable that holds
// them as PATH does.
func inventories(value any) []string {
	if list, ok := value.([]any); ok {
		paths := make([]string, len(list))
		for i, item := range list {
			paths[i] = fmt.Sprint(item)
		}
		return paths
	}
	return filepath.SplitList(fmt.Sprint(value))
}

// settingsFiles are where settings may be, the strongest last.
func settingsFiles() []string {
	files := []string{"/etc/vsfleet/config.yml"}
	if dir, err := os.UserConfigDir(); err == nil { // fails without a home only
		files = append(files, filepath.Join(dir, "vsfleet", "config.yml"))
	}
	return append(files, "vsfleet.yml")
}

func mergeSettings(v *viper.Viper, path string) error {
	file := viper.New()
	file.SetConfigFile(path)
	switch err := file.ReadInConfig(); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return &usageError{err: fmt.Errorf("settings %s: %w", path, err)}
	}
	for _, key := range file.AllKeys() {
		if !slices.Contains(settable, key) {
			return usage("known: %s; what belongs to hosts goes into the inventory", strings.Join(settable, ", "))(
				fmt.Errorf("settings %s: unknown setting %q", path, key))
		}
	}
	return v.MergeConfigMap(file.AllSettings())
}
