module joist

go 1.26.0
