const table = document.getElementById('videos')
const body = table.tBodies[0]
const value = (row, i) => row.cells[i].dataset.value ?? ''
const number = text => text === '' ? -Infinity : +text
let last = -1
let ascending = false

function sort(i) {
  const rows = [...body.rows]
  const numeric = rows.every(row => !isNaN(value(row, i)))
  ascending = i === last ? !ascending : !numeric
  last = i
  const compare = (a, b) => numeric
    ? number(value(a, i)) - number(value(b, i))
    : value(a, i).localeCompare(value(b, i))
  rows.sort((a, b) => ascending ? compare(a, b) : compare(b, a))
  body.append(...rows)
}

table.tHead.querySelectorAll('button').forEach((button, i) => button.addEventListener('click', () => sort(i)))
