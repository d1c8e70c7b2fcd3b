// A resumable stream (wire.md, section 4), opened again behind its last item when it is lost.
import { setTimeout as sleep } from 'node:timers/promises'
import { WireError } from './wireproto.mjs'

const [UNAVAILABLE, NOT_PROCESSED, REOPENINGS] = [14, 1, 10]

export class Gap { // yielded where items may be missing behind the one of that position
  constructor(after) { this.after = after }
}

// "method.resumable" is the field of an item that holds its position; "begin" makes each call's items: metadata in, an async iterable out.
export async function* follow(method, begin, { after, pause = 500 } = {}) {
  let [asked, last, begun, losses] = [after, after, false, 0]
  for (;;) {
    let received = false
    try {
      for await (const item of begin(asked === undefined ? {} : { resumeAfter: written(asked) })) {
        ;[received, begun, losses] = [true, true, 0]
        asked = last = item[method.resumable]
        yield item
      }
      return
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      if (error.reason === 'POSITION_LOST' && asked !== undefined && !received) {
        ;[asked, begun] = [undefined, true]
      } else {
        if (error.status !== UNAVAILABLE || ++losses > REOPENINGS) throw error
        begun ||= error.retry !== NOT_PROCESSED
        await sleep(Math.max(error.retryAfterMs, Math.random() * Math.min(pause * 2 ** (losses - 1), 10 * pause)))
      }
    }
    if (asked === undefined && begun) yield new Gap(last)
  }
}

function written(position) { // the same in every codec: a number in decimal, a string in UTF-8, bytes as they are
  return Buffer.isBuffer(position) ? position : Buffer.from(String(position))
}
