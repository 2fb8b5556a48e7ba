package lease

// queue is a heap of addresses by the time they come free, then by address.
type queue []*state

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	if x, y := q[i].freeAt(), q[j].freeAt(); !x.Equal(y) {
		return x.Before(y)
	}
	return q[i].Address.Less(q[j].Address)
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	s := x.(*state)
	s.index = len(*q)
	*q = append(*q, s)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	s.index = -1
	(*q)[last] = nil
	*q = (*q)[:last]
	return s
}
