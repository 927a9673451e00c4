package transport

import "sync"

// cache reads each file once for all hosts.
type cache[V any] struct {
	mu   sync.Mutex
	read map[string]func() (V, error)
}

func (c *cache[V]) get(path string, read func(string) (V, error)) (V, error) {
	c.mu.Lock()
	once := c.read[path]
	if once == nil {
		once = sync.OnceValues(func() (V, error) { return read(path) })
		if c.read == nil {
			c.read = make(map[string]func() (V, error))
		}
		c.read[path] = once
	}
	c.mu.Unlock()
	return once()
}

// forget what was read: files have changed.
func (c *cache[V]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = nil
}
