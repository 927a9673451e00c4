package setting

import "testing"

func TestSizesAreRead(t *testing.T) {
	for _, row := range []struct {
		text string
		want int64 // -1: an error
	}{
		{"0", 0}, {"1", 1}, {"1024", 1024}, {"1K", 1 << 10}, {"512M", 512 << 20}, {"2G", 2 << 30}, {"1T", 1 << 40},
		{"512MiB", 512 << 20}, {"1.5G", 3 << 29}, {"0.5K", 512}, {"8388606T", 8388606 << 40},
		{"", -1}, {"G", -1}, {"iB", -1}, {"1iB", -1}, {"512MB", -1}, {"512m", -1}, {"-1M", -1}, {"+1M", -1}, {"1e9", -1}, {"1.5", -1},
		{".5G", -1}, {"1.G", -1}, {"1.2.3G", -1}, {"1 G", -1}, {"8388608T", -1}, {"9223372036854775808", -1}, {"99999999999999999999", -1},
	} {
		got, err := parseSize(row.text)
		if (err != nil) != (row.want < 0) || err == nil && got != row.want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", row.text, got, err, row.want)
		}
	}
}

func TestSizesAreWritten(t *testing.T) {
	for n, want := range map[int64]string{0: "", 1: "1", 1024: "1K", 1536: "1536", 512 << 20: "512M", 3 << 30: "3G", 1 << 40: "1T"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}
