// Package spell finds the word that somebody probably meant.
package spell

import "strings"

// Nearest returns the word that was probably meant, or "" if none or several
// are as near.
func Nearest(word string, known []string) string {
	if len(word) > 64 {
		return ""
	}
	best, least := "", 3
	for _, k := range known {
		d := Distance(strings.ToLower(word), strings.ToLower(k))
		switch {
		case d*2 >= max(len(word), len(k)) || d > least:
		case d == least && d < 3:
			best = ""
		default:
			best, least = k, d
		}
	}
	return best
}

// Distance counts the insertions, deletions, replacements and swaps of
// neighbours between two words (optimal string alignment).
func Distance(a, b string) int {
	var before []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev = prev, cur
	}
	return prev[len(b)]
}
