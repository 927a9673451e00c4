package transport

import "sync"

// cache reads each file once for all hosts.
type cache[V any] struct {
	mu     sync.Mutex
	values map[string]func() (V, error)
}

func (c *cache[V]) get(path string, read func(string) (V, error)) (V, error) {
	c.mu.Lock()
	once := c.values[path]
	if once == nil {
		once = sync.OnceValues(func() (V, error) { return read(path) })
		if c.values == nil {
			c.values = make(map[string]func() (V, error))
		}
		c.values[path] = once
	}
	c.mu.Unlock()
	return once()
}

// clear forgets all files, as they may have changed.
func (c *cache[V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values = nil
}
