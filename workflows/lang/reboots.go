package lang

import "joist/engine/model"

// reboots checks that what reboots its node has something that outlasts that.
func (c *compiler) reboots() {
	for i := range c.model.Tasks {
		t := &c.model.Tasks[i]
		if t.Step.Reboots && c.model.Storage == model.InMemory {
			c.bag.Errorf(c.file.at, "Write storage = \"disk\", and order it after what makes the data disk.", "task %q (%s) reboots its node, and nodes whose storage is memory come back with nothing: it would never be done", t.Called, t.Step.Name)
		}
	}
}
