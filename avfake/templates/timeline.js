for (const plot of document.querySelectorAll('.avfake .plot[data-of]')) {
  const film = document.querySelector(`.avfake video.original[data-of="${plot.dataset.of}"]`)
  if (!film || plot.dataset.wired) continue
  plot.dataset.wired = 'yes'
  const {from, to, start, end} = Object.fromEntries(Object.entries(plot.dataset).map(([key, text]) => [key, +text]))
  const cursor = plot.querySelector('.cursor')
  const show = () => {
    const share = (film.currentTime - start) / (end - start)
    cursor.style.display = share >= 0 && share <= 1 ? 'block' : 'none'
    cursor.style.left = `${100 * (from + share * (to - from))}%`
  }
  const follow = () => {
    show()
    if (!film.paused) requestAnimationFrame(follow)
  }
  film.addEventListener('play', follow)
  for (const event of ['timeupdate', 'seeked', 'loadedmetadata']) film.addEventListener(event, show)
  plot.addEventListener('click', click => {
    const box = plot.getBoundingClientRect()
    const share = ((click.clientX - box.left) / box.width - from) / (to - from)
    film.currentTime = start + Math.min(Math.max(share, 0), 1) * (end - start)
  })
}
